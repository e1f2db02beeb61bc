"""How fast nfvi is, beside other libraries and beside itself: see ``__main__.py``."""
