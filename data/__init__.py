"""Import path of the published code; what it offers lives in ``bort``."""
