"""Where cells run: one interface (`base`), one launcher per place."""
