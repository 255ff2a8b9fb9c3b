import re

from dimgpt.display.progress import PreparationBar, Progress


def record(source, done, total=1_000_000):
    return Progress(
        source=source,
        num_documents=done // 100,
        text_bytes=3 * done,
        file_bytes=done,
        total_file_bytes=total,
        disk_free=82 * 10**9,
    )


def test_each_source_gets_a_line_with_documents_speed_and_room(capsys):
    with PreparationBar() as bar:
        for source in ("books", "news"):
            for done in (0, 500_000, 1_000_000):
                bar(record(source, done))
    lines = [line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if line.strip()]
    for source in ("books", "news"):
        last = [line for line in lines if line.startswith(f"{source}: 100%")][-1]
        assert "10,000 documents" in last
        assert re.search(r"\d MB/s", last)
        assert "82 GB free" in last


def test_what_cannot_be_measured_has_no_percentage(capsys):
    with PreparationBar() as bar:
        bar(record("demo", 700, total=0))
    assert "demo: 00:00, 7 documents" in capsys.readouterr().err
