"""app: the web page; what it shows is made by plain functions in session.py, gradio is imported in page.py alone."""
