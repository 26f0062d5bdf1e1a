"""One file, one question. `workbench list` shows them, `workbench run NAME` runs one."""
