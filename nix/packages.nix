# The flake's packages.
{ pkgs }:
rec {
  endpoint = pkgs.callPackage ./package.nix { };
  default = endpoint;
}
