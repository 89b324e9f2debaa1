from semforensics.core.markdown import markdown_table


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
