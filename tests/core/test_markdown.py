from semforensics.core.markdown import markdown_table, with_interval


def test_a_table_keeps_the_text_of_its_cells():
    """Numbers are not reformatted, empty and repeated names are allowed, columns are padded."""
    table = markdown_table(["", "n", "n"], [["a", "1.50", "007"], ["**b**", "1e5", ""]])

    assert table == (
        "|       | n    | n   |\n"
        "|-------|------|-----|\n"
        "| a     | 1.50 | 007 |\n"
        "| **b** | 1e5  |     |\n"
    )


def test_a_table_without_lines_is_its_header():
    """A table of no lines has its names and the rule below them."""
    assert markdown_table(["a", "b"], []) == "| a   | b   |\n|-----|-----|\n"


def test_a_number_is_written_with_its_interval() -> None:
    """Three digits, or per cent with one."""
    numbers = {"auroc": 0.9, "auroc_low": 0.85, "auroc_high": 0.9512}

    assert with_interval(numbers, "auroc") == "0.900 (0.850-0.951)"
    assert with_interval(numbers, "auroc", percent=True) == "90.0 (85.0-95.1)"
