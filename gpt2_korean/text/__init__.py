"""Files → documents → a vocabulary → blocks of tokens; prompts → ids. Knows no model."""
