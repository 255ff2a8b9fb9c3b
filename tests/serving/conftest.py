from browsing import browser, page, page_address
from served import address, model, slow_steps, tokenizer, written

__all__ = ["address", "browser", "model", "page", "page_address", "slow_steps", "tokenizer"]
__all__ += ["written"]
