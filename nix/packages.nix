# The flake's packages.
{ pkgs }:
let
  module = pkgs.callPackage ./package.nix { };
  with-hub = pkgs.callPackage ./package.nix { extras = [ "hub" ]; };
in
rec {
  endpoint = pkgs.callPackage ./program.nix {
    inherit module;
    name = "compute-endpoint";
    programs = [ "globus-compute-endpoint" "gce" ];
  };

  # A hub's host has endpoints too, or what checks them. The broker is for `compute-hub serve --embedded`.
  hub = pkgs.callPackage ./program.nix {
    module = with-hub;
    name = "compute-hub";
    programs = [ "compute-hub" "globus-compute-endpoint" "gce" ];
    starting = [ "compute-hub" ];
    path = [ pkgs.rabbitmq-server pkgs.erlang pkgs.util-linux ];
  };

  # A Python for workers, with this endpoint in it: GC_WORKER_PYTHON, or first on PATH in worker_init.
  worker = pkgs.python3.withPackages (_: [ module ]);

  # All of it as one file, for hosts that reach no cache.
  bundle = pkgs.callPackage ./bundle.nix {
    inherit (module) version;
    roots = { inherit endpoint hub worker; };
  };

  default = endpoint;
}
