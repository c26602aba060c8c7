"""What has to be there before the first trial: models, tokenised notes, stored teachers."""
