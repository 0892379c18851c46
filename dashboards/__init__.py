"""The dashboard: runs, figures and sentences arranged in a browser, by Dash.

`app` makes the application and serves it, `shell` is what every page has around it, `shelf` hands
out runs, `stage` what moves through time, `security` stands before every request, `jobs` records
in processes of its own, and each file of `pages/` is one page: its layout and its callbacks. Read
`pages/schedule.py` first.
"""
