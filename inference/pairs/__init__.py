"""What a Pyro pair is: programs, parameters, sites, structure, log terms, latent space, checks."""
