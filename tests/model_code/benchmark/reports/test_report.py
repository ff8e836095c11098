import dataclasses
import re

import numpy as np
import pytest

from model_code.benchmark.reports import report
from model_code.benchmark.reports.latency_sheets import chosen_line
from model_code.benchmark.reports.selection import Selection
from model_code.benchmark.result import BesideRow, LoadRow, Served
from model_code.benchmark.significance import paired
from tests.support.benchmark import benchmark_run

RANDOM = np.random.default_rng(1)
ANSWER = RANDOM.uniform(size=400)
LABEL = (RANDOM.uniform(size=400) < ANSWER).astype(np.int8)
CHOSEN = Selection(
    engine="openvino-int8",
    reason="openvino-int8 is the fastest that did not fail",
    verdicts={"openvino-int8": "pass"},
    reasons={"openvino-int8": "all goals are met"},
)


@pytest.fixture(scope="module")
def run():
    return benchmark_run(
        LABEL,
        {"torch-fp32": ANSWER, "openvino-int8": np.clip(ANSWER + 0.01, 0, 1)},
        {"torch-fp32": np.full(100, 4.0), "openvino-int8": np.full(100, 1.25)},
        unavailable={"tensorrt-fp16": "no NVIDIA driver"},
    )


def test_the_last_line_names_engine_ratio_and_limit(run):
    # 147,194,112 multiply-adds at 2e11 per second are 0.736 ms
    assert chosen_line(run.result, "openvino-int8") == (
        "chosen openvino-int8: 3.2x torch-fp32 at batch 1, 59% of the arithmetic floor"
    )


def test_ratios_refer_to_the_designs_network_if_it_was_timed_beside(run):
    beside = BesideRow(
        engine="design torch-fp32", p50_ms=50.0, p90_ms=51.0, p99_ms=52.0, p999_ms=53.0,
        mean_ms=50.5, interval=None, floor_ms=5.0,
    )  # fmt: skip
    result = run.result.model_copy(update={"beside": (beside,)})
    assert chosen_line(result, "openvino-int8") == (
        "chosen openvino-int8: 40.0x torch-fp32 of the design's network at batch 1, "
        "59% of the arithmetic floor"
    )
    text = report.markdown(result)
    assert "| design torch-fp32 | 50.00 | – | 51.00 | 52.00 | 53.00 | 50.50 | 1.00x | 10% |" in text
    assert "| openvino-int8 | 1.25 | 1.25–1.25 | 1.25 | 1.25 | 1.25 | 1.25 | 40.00x | 59% |" in text
    assert "p50 of torch-fp32 of the design's network" in text


def test_the_tables_list_every_engine_and_why_one_was_not_run(run):
    text = report.markdown(run.result)
    assert "| openvino-int8 | 1.25 | 1.25–1.25 | 1.25 | 1.25 | 1.25 | 1.25 | 3.20x | 59% |" in text
    assert "| openvino-int8 | yes |" in text
    assert "| tensorrt-fp16 | not run: no NVIDIA driver |" in text
    assert "### 95% confidence intervals" in text
    assert "| processor | simulated |" in text
    for sheet in report.sheets(run.result):
        assert all(len(row) == len(sheet.columns) for row in sheet.rows), sheet.title


def test_a_row_is_unstable_if_the_machine_changed_during_the_measurement():
    latency = np.concatenate([np.full(60, 4.0), np.full(40, 5.0)])
    found = benchmark_run(LABEL, {"torch-fp32": ANSWER}, {"torch-fp32": latency})
    assert "| torch-fp32 | unstable |" in report.markdown(found.result)


def test_the_page_is_one_file_with_its_plots_and_the_worst_windows(run, tmp_path):
    report.publish(run, tmp_path)
    page = report.judged_pages(run, tmp_path, CHOSEN)["benchmark.html"]
    assert page.count("data:image/png;base64,") == 6
    assert "<script" not in page
    assert 'src="http' not in page
    assert "Worst windows" in page
    assert "volatility" in page
    text = (tmp_path / "benchmark.md").read_text()
    assert text == report.run_markdown(run)
    assert text.startswith(report.markdown(run.result))
    assert "### Weakest slices" in text
    assert "| A, volatility, 1st quartile | " not in text  # fewer than 100 windows
    assert "| B, 00 UTC | 200 | " in text
    assert "Weakest slices" in page


def test_the_page_begins_with_the_choice_and_marks_it_in_every_table(run, tmp_path):
    page = report.html(run, tmp_path, CHOSEN)
    words = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", page[page.index("<h1>") :]))
    assert words.startswith(" Chosen engine: openvino-int8 ")
    first = words.index("3.2x torch-fp32")
    assert words.index("all goals are met") < first < words.index("Why the faster engines")
    assert words.index("Why the faster engines") < words.index("Milliseconds, batch 1")
    tables = re.findall("<table>.*?</table>", page, re.DOTALL)
    tables = [table for table in tables if ">openvino-int8" in table]
    assert len(tables) >= len(report.sheets(run.result))
    for table in tables:
        assert re.search(r'<tr class="chosen"><th scope="row">openvino-int8 <span.*>chosen', table)
    assert '<th scope="row">processor</th><td>simulated</td>' in page
    assert "of 1970-01-01: " in words


def test_the_markdown_begins_with_the_choice_and_marks_it(run, tmp_path):
    text = report.judged_pages(run, tmp_path, CHOSEN)["benchmark.md"]
    assert text.startswith("**Chosen openvino-int8: 3.2x torch-fp32")
    assert "| openvino-int8 (chosen) | 1.25 |" in text
    assert "| torch-fp32 | 4.00 |" in text


def test_the_page_can_be_read_by_a_screen_reader_and_a_keyboard(run, tmp_path):
    report.publish(run, tmp_path)
    page = report.html(run, tmp_path, CHOSEN)
    assert page.count("<h1>") == 1
    assert not re.findall(r"<th(?! scope)[^e]", page)
    assert not re.findall(r'<img(?! alt="[^"]+")', page)
    assert page.count('class="scroll"') == page.count('tabindex="0"') == page.count("</table>") - 1
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_the_paired_test_is_reported(run):
    rows = []
    for row in run.result.rows:
        q = run.probability_N[row.engine]
        pair = paired(LABEL, q, ANSWER, run.context, resamples=50)
        rows.append(row.model_copy(update={"paired": pair if q is not ANSWER else None}))
    result = run.result.model_copy(update={"rows": tuple(rows)})
    found = next(sheet for sheet in report.sheets(result) if sheet.title.startswith("Paired"))
    (line,) = found.rows
    pair = rows[1].paired
    assert line[:5] == (
        "openvino-int8", "0.0100", str(pair.worse), str(pair.better), f"{pair.p_value:.2g}"
    )  # fmt: skip
    low, _, high = line[6].partition("..")
    assert float(low) <= 0 <= float(high)  # a shift of 0.01 changes only ranks of clipped values


def test_simulated_ticks_are_labelled(run, tmp_path):
    simulated = dataclasses.replace(run, result=run.result.model_copy(update={"simulated": True}))
    for found, labelled in ((run, False), (simulated, True)):
        report.publish(found, tmp_path)
        pages = report.judged_pages(found, tmp_path, CHOSEN)
        for text in ((tmp_path / "benchmark.md").read_text(), *pages.values()):
            assert ("SIMULATED" in text) is labelled


def test_the_gates_verdicts_are_a_table():
    sheet = report.verdicts([("openvino-int8", "fail", "missed: AUC")])
    assert "| openvino-int8 | fail | missed: AUC |" in sheet.markdown()


def test_the_server_has_its_own_table(run):
    assert len(report.sheets(run.result)) == 6
    load = LoadRow(load="concurrency 8", p50_ms=2.0, p99_ms=4.0, throughput=900.0, failed=0)
    served = Served(
        engine="openvino-int8", server="triton 2.51", queue_ms=0.1, compute_ms=1.0, loads=(load,)
    )
    text = report.markdown(run.with_served(served).result)
    assert "| concurrency 8 | 2.00 | 4.00 | 900 | 0 |" in text
    assert "0.10 ms is queue time and 1.00 ms is engine time" in text
