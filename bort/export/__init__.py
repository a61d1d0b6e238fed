"""Models in the forms that others load: today folders of Hugging Face Transformers."""
