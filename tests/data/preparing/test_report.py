import io
import itertools
import json
import pickle
from random import Random

import pytest
from matplotlib.figure import Figure

from dimgpt.data.preparing.report import NUM_SAMPLES, SourceReport
from dimgpt.display.plots import plot_report
from dimgpt.display.tables import Table
from dimgpt.text.cleaning import normalize_text

DOCUMENTS = [f"Document n° {number} — « {'mot ' * (number % 17)}» …" for number in range(200)]


def report_of(documents, *, seed=0, group=""):
    report = SourceReport(source="a", group=group, seed=seed)
    for document in documents:
        cleaned = normalize_text(document)
        report.observe(document, cleaned)
        report.keep([len(cleaned)], [len(cleaned) // 3])
    return report


def through_json(report):
    return SourceReport.from_dict(json.loads(json.dumps(report.to_dict(), ensure_ascii=False)))


def test_documents_characters_and_tokens_are_counted():
    report = SourceReport(source="a", group="g")
    report.keep([10, 30], [4, 6])
    report.keep([20], [5])
    report.drop("too_short", 3)
    report.drop("near_duplicate")
    report.drop("language", 0)
    row = report.row()
    assert (row["source"], row["group"]) == ("a", "g")
    assert (row["documents"], row["characters"], row["tokens"]) == (3, 60, 15)
    assert row["characters per token"] == 4.0
    assert row["dropped"] == "near duplicate 1, too short 3"
    assert "near duplicate 1, too short 3" in repr(Table.of([row]))


def test_an_empty_report_has_a_row():
    report = SourceReport(source="a")
    assert report.row()["characters per token"] == 0
    assert report.row()["dropped"] == "none"
    assert report.character_rows() == []
    assert report.sample_texts() == []
    report.keep([], [])
    assert through_json(report) == report


def test_characters_that_cleaning_does_not_keep_are_counted_with_what_becomes_of_them():
    report = report_of(["« Ça — là » naïve ① 東\ud800\u00a0x\r", "東東 🙂\tà\n"])
    found = {
        row["character"] or row["name"]: (row["count"], row["becomes"])
        for row in report.character_rows()
    }
    assert found["東"] == (3, "Dong ")
    assert found["«"] == (1, '"')
    assert found["—"] == (1, "-")
    assert found["U+D800"] == (1, "nothing")
    assert found["U+00A0 NO-BREAK SPACE"] == (1, "a space")
    assert found["①"] == (1, normalize_text("x①x")[1:-1])
    assert "U+000D" in found
    assert not set(found) & set("Çàï \t\nx")
    assert report.character_rows()[0]["name"] == "U+6771 CJK UNIFIED IDEOGRAPH-6771"
    assert len(report.character_rows(2)) == 2


@pytest.mark.slow
def test_exactly_those_characters_are_counted_that_cleaning_changes():
    for code in [*range(0x3000), *range(0x1F300, 0x1F700)]:
        report = SourceReport(source="a")
        text = f"x{chr(code)}x"
        report.observe(text, "")
        assert bool(report.changed_characters) == (normalize_text(text) != text), hex(code)


def test_a_document_is_observed_in_pieces_of_any_size(monkeypatch):
    whole = report_of(DOCUMENTS)
    monkeypatch.setattr("dimgpt.data.preparing.report._BLOCK_CHARACTERS", 3)
    assert report_of(DOCUMENTS) == whole


@pytest.mark.parametrize("num_parts", [1, 2, 3, 50, 200])
def test_merging_depends_neither_on_the_order_nor_on_the_parts(num_parts):
    whole = report_of(DOCUMENTS)
    parts = [report_of(DOCUMENTS[part::num_parts]) for part in range(num_parts)]
    Random(num_parts).shuffle(parts)
    merged = SourceReport(source="a")
    for part in parts:
        merged.merge(through_json(pickle.loads(pickle.dumps(part))))
    assert merged == whole
    assert merged.character_rows() == whole.character_rows()


def test_equal_reports_are_equal_to_the_byte():
    reports = [report_of(DOCUMENTS), report_of(DOCUMENTS[::-1])]
    for report, reasons in zip(reports, (("a", "b"), ("b", "a")), strict=True):
        for reason in reasons:
            report.drop(reason)
    assert len({json.dumps(report.to_dict()) for report in reports}) == 1


def test_notes_are_merged_in_one_order_each_once():
    reports = [SourceReport(source="a", notes=[*notes]) for notes in (["y", "x"], [], ["x", "z"])]
    merged = SourceReport(source="a")
    for report in reports:
        merged.merge(through_json(report))
    assert merged.notes == ["x", "y", "z"]


def test_a_report_of_an_older_version_without_notes_is_read():
    values = report_of(DOCUMENTS).to_dict()
    del values["notes"]
    assert SourceReport.from_dict(values) == report_of(DOCUMENTS)


def test_merging_is_associative():
    parts = [report_of(DOCUMENTS[part::3]) for part in range(3)]
    left, right, tail = (through_json(part) for part in parts)
    left.merge(right)
    left.merge(tail)
    parts[1].merge(parts[2])
    parts[0].merge(parts[1])
    assert parts[0] == left


def test_ten_random_documents_are_shown_by_the_seed_and_each_is_as_likely():
    def chosen_by(seed):
        report = SourceReport(source="a", seed=seed)
        for document in DOCUMENTS:
            report.observe("", document)
        return report.sample_texts()

    assert len(report_of(DOCUMENTS).sample_texts()) == NUM_SAMPLES
    assert report_of(DOCUMENTS) == report_of(DOCUMENTS)
    chosen = [chosen_by(seed) for seed in range(100)]
    assert chosen[0] != chosen[1]
    shown = list(itertools.chain.from_iterable(chosen))
    numbers = [int(text.split()[2]) for text in shown]
    assert len(set(numbers)) > 180
    assert 90 < sum(numbers) / len(numbers) < 110


def test_samples_are_different_documents_and_only_their_beginnings():
    report = report_of(["le même " * 1000] * 50 + ["un autre"])
    assert sorted(map(len, report.sample_texts())) == [8, 500]


def test_reports_of_two_sources_or_seeds_do_not_mix():
    with pytest.raises(ValueError, match="'b'.*cannot join that of 'a'"):
        SourceReport(source="a").merge(SourceReport(source="b"))
    with pytest.raises(ValueError, match="with seed 1 cannot join"):
        SourceReport(source="a").merge(SourceReport(source="a", seed=1))


def test_a_report_survives_json_whatever_it_has_seen():
    report = report_of(["\ud800 \x00 🇫🇷 ⮜user⮞ \U0010ffff", "a" * 10_000_000])
    report.drop("too_long", 7)
    assert through_json(report) == report


@pytest.mark.parametrize(
    "change",
    [
        {"samples": [[1]]},
        {"samples": 3},
        {"changed_characters": {"zz": 1}},
        {"changed_characters": {"FFFFFFFFF": 1}},
        {"lengths": {"a": 1}},
        {"dropped": 3},
        {"notes": 3},
        {"more": 1},
    ],
    ids=str,
)
def test_other_values_are_no_report(change):
    with pytest.raises(ValueError, match="not a report on a source"):
        SourceReport.from_dict(report_of(DOCUMENTS).to_dict() | change)
    with pytest.raises(ValueError, match="not a report on a source"):
        SourceReport.from_dict({"source": "a"})


def test_lengths_are_counted_in_half_octaves():
    report = SourceReport(source="a")
    report.keep([1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 1 << 40], [1] * 11)
    assert dict(report.lengths) == {1: 1, 2: 1, 3: 1, 4: 2, 6: 2, 8: 2, 12: 1, 1 << 40: 1}


def test_a_picture_shows_what_was_left_out_by_reason():
    report = report_of(DOCUMENTS[:6])
    report.drop("too_short", 3)
    report.drop("near_duplicate", 1)
    dropped = plot_report([report]).axes[2]
    assert [bar.get_width() for bar in dropped.patches] == [10.0, 30.0]
    names = [text.get_text() for text in dropped.get_legend().get_texts()]
    assert names == ["near duplicate", "too short"]


def test_a_picture_says_that_nothing_was_left_out():
    dropped = plot_report([report_of(DOCUMENTS[:6])]).axes[2]
    assert [text.get_text() for text in dropped.texts] == ["nothing"]


@pytest.mark.slow
def test_a_picture_shows_every_source_and_group():
    reports = [report_of(DOCUMENTS, group="web"), report_of(DOCUMENTS[:50], group="web")]
    reports[1].source = "b"
    reports.append(SourceReport(source="empty", group="nothing"))
    reports.append(SourceReport(source="alone"))
    figure = plot_report(reports)
    assert isinstance(figure, Figure)
    lengths, tokens, dropped = figure.axes
    assert [label.get_text() for label in dropped.get_yticklabels()] == ["alone", "empty", "b", "a"]
    assert [text.get_text() for text in lengths.get_legend().get_texts()] == ["a", "b"]
    names = [label.get_text() for label in tokens.get_yticklabels()]
    assert sorted(names) == ["alone", "nothing", "web"]
    assert names[-1] == "web"
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.slow
def test_a_picture_of_empty_sources_or_of_none_is_no_crash():
    plot_report([SourceReport(source="a")]).savefig(io.BytesIO(), format="png")
    with pytest.raises(ValueError, match="no report to draw"):
        plot_report([])
