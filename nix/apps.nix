# `nix run .#endpoint -- ARGUMENTS` is `globus-compute-endpoint ARGUMENTS`, and with `.#hub` it is `compute-hub ARGUMENTS`;
# `nix run .#demo` starts a hub and an endpoint and has functions run, with what it needs from nixpkgs.
{ pkgs, packages }:
let
  app = program: {
    type = "app";
    inherit program;
  };
in
rec {
  endpoint = app "${packages.endpoint}/bin/globus-compute-endpoint";
  hub = app "${packages.hub}/bin/compute-hub";
  demo = app "${pkgs.callPackage ./demo.nix { inherit (packages.hub.passthru) module; }}/bin/demo";
  default = endpoint;
}
