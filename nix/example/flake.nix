# A host of a site: a hub with its broker, an endpoint for all its users, and one for a single account.
# Copy this folder, change it, and build it with: nixos-rebuild switch --flake .#compute1
{
  description = "A host with Globus Compute endpoints";

  inputs = {
    # Pinned by flake.lock, which `nix flake lock` writes: keep it, and change it on purpose (`nix flake update`).
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-25.11";
    # Where you have the project: a checkout, a Git server of yours, a tarball.
    compute-endpoint.url = "path:/srv/compute-endpoint";
    # One nixpkgs for the system and the program.
    compute-endpoint.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs =
    { nixpkgs, compute-endpoint, ... }:
    {
      nixosConfigurations.compute1 = nixpkgs.lib.nixosSystem {
        system = "x86_64-linux";
        modules = [ compute-endpoint.nixosModules.default ./configuration.nix ];
      };
    };
}
