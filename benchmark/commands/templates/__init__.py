"""Files that `python -m benchmark new` copies; `my_name` and `MyName` become the new name."""
