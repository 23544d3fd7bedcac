# globus-compute-endpoint and compute-hub, built with the nixpkgs that this is laid over.
final: _:
let
  packages = import ./packages.nix { pkgs = final; };
in
{
  globus-compute-endpoint = packages.endpoint;
  compute-hub = packages.hub;
}
