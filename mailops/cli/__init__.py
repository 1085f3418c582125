"""What is typed: Fabric's program, executor and parser, made to fit a site."""
