"""Operations and backup suite: keep the promises made about backups, and prove them.

`docs/` tells how; `opsd.app` joins the parts; each package below promises one thing.
"""
