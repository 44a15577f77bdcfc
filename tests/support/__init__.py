"""What several tests need and the project does not: real services, names that nobody else uses."""
