"""A run's folder and its pages.

Manifests of stages go in; a folder with models, figures and a page comes out. Read
`run_folder` first.
"""
