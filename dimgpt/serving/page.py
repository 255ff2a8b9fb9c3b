"""The web page: a chat with one model or two side by side, and a view inside a model.

Made with gradio (https://www.gradio.app). Texts of people and models are shown as plain text. The
browser loads everything from this server: no fonts, statistics or tunnels from elsewhere.
"""

import gradio as gr
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from dimgpt.config import SamplingConfig
from dimgpt.presets import Preset
from dimgpt.serving.chat_tab import ChatTab
from dimgpt.serving.inside_tab import InsideTab, Passages
from dimgpt.serving.limits import BodyLimit, allowed_hosts
from dimgpt.serving.model_shelf import ModelShelf
from dimgpt.serving.page_guard import PageGuard
from dimgpt.serving.page_texts import I18N

_MAX_RUNNING, _MAX_WAITING, _MAX_PEOPLE = 2, 6, 100
_CSS = """
footer { display: none !important }
.gradio-container { width: 100%; max-width: 76rem !important; margin: auto }
"""


def create_page(
    shelf: ModelShelf,
    preset: Preset,
    sampling: SamplingConfig,
    *,
    passages: Passages,
    first: str | None = None,
    host: str = "127.0.0.1",
) -> FastAPI:
    """Return the application.

    Args:
        shelf: Opens the models.
        preset: Gives the system prompt and the example questions.
        sampling: Initial values of the sliders.
        passages: Opens the indexes of the training files of a model.
        first: The model that is selected at first, if it exists.
        host: Address that the server will listen at; see `allowed_hosts`.
    """
    with gr.Blocks(title="dimgpt", analytics_enabled=False, fill_width=True) as page:
        with gr.Tab(I18N("chat")):
            chat = ChatTab(shelf, preset, sampling, first)
            chat.connect(page)
        with gr.Tab(I18N("inside")):
            InsideTab(shelf, passages, chat).connect()
    page.queue(max_size=_MAX_WAITING, default_concurrency_limit=_MAX_RUNNING, api_open=False)
    page.state_session_capacity = _MAX_PEOPLE
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(BodyLimit)
    app.add_middleware(PageGuard)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(host), www_redirect=False)
    return _mount(app, page)


def _mount(app: FastAPI, page: gr.Blocks) -> FastAPI:
    """Mount a page at the root of an application, without gradio's optional features."""
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        i18n=I18N,
        css=_CSS,
        theme=gr.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
    )
