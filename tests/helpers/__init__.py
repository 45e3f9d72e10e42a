"""What several tests share: small models, runs and bundles, images on disk, scripts for processes of their own."""
