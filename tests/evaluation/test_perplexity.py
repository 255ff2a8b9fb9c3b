import math

import numpy as np
import pytest
import torch

from dimgpt.config import ModelConfig
from dimgpt.data.token_file import Manifest, TokenFile, write_manifest
from dimgpt.data.token_writer import TokenFileWriter
from dimgpt.evaluation.intervals import ratio_margin
from dimgpt.evaluation.perplexity import measure_perplexity
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"), precision="fp32")
VOCAB_SIZE, FINGERPRINT = 40, "f" * 64
BYTES = np.arange(VOCAB_SIZE, dtype=np.int32) % 4


def make_model(context_length=8):
    torch.manual_seed(0)
    config = ModelConfig(
        vocab_size=VOCAB_SIZE,
        context_length=context_length,
        window_size=None,
        embedding_dim=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=24,
        init_std=0.5,  # far from uniform, so that a wrong context shows
    )
    return Transformer(config).eval()


@pytest.fixture
def write(tmp_path):
    def write_documents(lengths, num_raw_bytes=None):
        generator = np.random.default_rng(1)
        ids = generator.integers(1, VOCAB_SIZE, size=sum(lengths))
        with TokenFileWriter(tmp_path, "validation", vocab_size=VOCAB_SIZE) as writer:
            counts = {"num_characters": 1, "num_bytes": 4, "num_raw_bytes": num_raw_bytes}
            writer.write_documents(ids, np.array(lengths), **counts)
        manifest = Manifest(
            vocabulary_sha256=FINGERPRINT,
            vocab_size=VOCAB_SIZE,
            source={},
            dropped={},
            files={"validation": writer.summary},
        )
        write_manifest(tmp_path, manifest)
        return TokenFile(tmp_path, "validation", fingerprint=FINGERPRINT)

    return write_documents


def naive(model, file):
    """Score token by token: each after as many tokens as its window gives it.

    The first context + 1 tokens are read together; from there on, each half context of tokens
    follows the half before it.
    """
    context, rows = model.config.context_length, []
    half = max(1, context // 2)
    for number in range(file.num_documents):
        ids = file.document(number).astype(np.int64)
        for place in range(1, len(ids)):
            steps = 0 if place <= context else math.ceil((place - context) / half)
            before = torch.from_numpy(ids[steps * half : place])[None]
            with torch.no_grad():
                scores = model(before)[0, -1].double().log_softmax(-1)
            target = int(ids[place])
            rows.append((-float(scores[target]), int(scores.argmax()) == target, BYTES[target]))
    return np.array(rows)


@pytest.mark.parametrize(
    ("lengths", "context_length"),
    [
        ([2, 5, 9, 3], 8),  # shorter than the context, or just one that fits
        ([10], 8),
        ([13, 14, 40, 8, 2], 8),
        ([12, 30], 5),
        ([7, 4], 2),
        ([5, 2], 1),
        ([1, 6, 1], 8),
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_every_token_after_the_first_counts_once(write, lengths, context_length, batch_size):
    model, file = make_model(context_length), write(lengths)
    expected = naive(model, file)
    measured = measure_perplexity(
        model, file, byte_counts=BYTES, runtime=CPU, batch_size=batch_size
    )
    assert measured.documents == len(lengths)
    assert measured.tokens == sum(lengths) - len(lengths) == len(expected)
    assert measured.loss == pytest.approx(expected[:, 0].mean(), abs=1e-5)
    assert measured.accuracy == pytest.approx(expected[:, 1].mean())
    assert measured.perplexity == pytest.approx(math.exp(measured.loss))
    bits = expected[:, 0].sum() / math.log(2)
    assert measured.bits_per_byte == pytest.approx(bits / expected[:, 2].sum(), abs=1e-5)


def test_a_token_far_into_a_document_has_at_least_half_a_context_before_it(write):
    model, file = make_model(8), write([60])
    seen = []

    def watch(module, arguments):
        seen.append(arguments[0].shape[1])

    model.register_forward_pre_hook(watch)
    measured = measure_perplexity(model, file, byte_counts=BYTES, runtime=CPU, batch_size=1)
    assert measured.tokens == 59
    # The first window counts 8 tokens, each further one 4: the other 4 are what stands before.
    assert len(seen) == 1 + math.ceil((59 - 8) / 4)


def test_a_uniform_model_has_the_entropy_of_its_vocabulary(write):
    model, file = make_model(), write([20, 3])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    measured = measure_perplexity(
        model, file, byte_counts=np.full(VOCAB_SIZE, 2, dtype=np.int32), runtime=CPU
    )
    assert measured.loss == pytest.approx(math.log(VOCAB_SIZE), abs=1e-6)
    assert measured.perplexity == pytest.approx(VOCAB_SIZE, rel=1e-5)
    assert measured.bits_per_byte == pytest.approx(math.log2(VOCAB_SIZE) / 2, abs=1e-6)


def test_tokens_of_no_bytes_give_no_bits_per_byte(write):
    nothing = np.zeros(VOCAB_SIZE, dtype=np.int32)
    measured = measure_perplexity(make_model(), write([4]), byte_counts=nothing, runtime=CPU)
    assert math.isnan(measured.bits_per_byte)


def test_a_file_without_a_token_to_predict_is_refused(write):
    with pytest.raises(ValueError, match="no token to predict"):
        measure_perplexity(make_model(), write([1, 1]), byte_counts=BYTES, runtime=CPU)


def test_raw_text_has_more_bytes_and_so_fewer_bits_in_each(write):
    measured = measure_perplexity(make_model(), write([9], 5), byte_counts=BYTES, runtime=CPU)
    assert measured.bits_per_raw_byte == pytest.approx(measured.bits_per_byte * 4 / 5)
    measured = measure_perplexity(make_model(), write([9]), byte_counts=BYTES, runtime=CPU)
    assert math.isnan(measured.bits_per_raw_byte)  # data of an older version


def test_the_interval_is_that_of_the_documents_whatever_the_windows(write):
    model, lengths = make_model(), [30, 4, 12, 7, 9, 3, 25, 5, 6, 11]
    file = write(lengths)
    rows, ends = naive(model, file), np.cumsum([length - 1 for length in lengths])
    nats = np.array([part.sum() for part in np.split(rows[:, 0], ends[:-1])])
    measured = measure_perplexity(model, file, byte_counts=BYTES, runtime=CPU, batch_size=3)
    expected = ratio_margin(nats, np.array(lengths) - 1)
    assert measured.loss_margin == pytest.approx(expected, abs=1e-5)
    assert measured.bits_per_byte_margin > 0
    short = measure_perplexity(model, write(lengths[:9]), byte_counts=BYTES, runtime=CPU)
    assert math.isnan(short.loss_margin)
