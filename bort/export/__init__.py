"""Models in the forms that others load: folders of Hugging Face Transformers."""
