import itertools

import pytest

from dimgpt.config import ConversationSourceConfig
from dimgpt.data.preparing.items import read_conversations
from dimgpt.demo.small_talk import TOPICS, held_out_talk, small_talk


@pytest.mark.slow
def test_training_never_says_a_held_out_message():
    trained = {message.text for talk in small_talk(3_000, seed=0) for message in talk.messages}
    held_out = {text for seed in range(20) for _, text, _ in held_out_talk(seed=seed)}
    assert len(held_out) > 100
    assert not held_out & trained


def test_each_topic_is_trained_and_held_out_and_no_slot_stays_empty():
    said = {message.text for talk in small_talk(2_000, seed=0) for message in talk.messages}
    for _, answers in TOPICS.values():
        beginnings = tuple(answer.partition("{")[0] for answer in answers)
        assert any(text.startswith(beginnings) for text in said)
    assert {topic for topic, *_ in held_out_talk(seed=0)} == {*TOPICS}
    assert not any("{" in text for text in said)


def test_an_answer_repeats_the_name_that_it_was_told():
    told = [item for item in held_out_talk(seed=3) if item[0] == "name told"]
    for _, message, (answer,) in told:
        name = answer.removeprefix("Bonjour ").partition(" ")[0]
        assert name in message


def test_a_source_names_it():
    source = ConversationSourceConfig(name="talk", path="demo://small-talk/50")
    made = list(read_conversations(source, seed=4))
    assert made == list(itertools.islice(small_talk(50, seed=4), 50))
