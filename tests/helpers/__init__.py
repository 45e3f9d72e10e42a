"""What several tests share: small models, runs and bundles, pictures on disk, scripts for processes of their own."""
