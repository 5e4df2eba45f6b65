"""How a case of each kind is judged: every module here has `KINDS`, a dict from kind to `check(case)`."""
