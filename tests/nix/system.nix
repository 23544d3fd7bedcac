# A system with our modules and one more, as the stand-in has systems. nixpkgs, flake: folders; module: a file, or a module.
{ nixpkgs, flake, module }:
let
  lib = import (nixpkgs + "/lib.nix");
  system = builtins.currentSystem;
  pkgs = import (nixpkgs + "/packages.nix") { inherit lib system; };
  modules = import (flake + "/nix/modules.nix") {
    packages.${system} = import (flake + "/nix/packages.nix") { inherit pkgs; };
  };
  found = lib.nixosSystem { inherit system; modules = [ modules.default module ]; };
  inherit (found) config;

  # Every option below `options`, with what its documentation is made from.
  walk =
    place: options:
    builtins.concatLists (
      lib.mapAttrsToList (
        name: option:
        let
          here = "${place}.${name}";
        in
        if !lib.isOption option then walk here option
        else
          [
            {
              name = here;
              type = option.type.description;
              description = option.description or "";
              example = option ? example;
            }
          ]
          ++ walk here option.type.getSubOptions
      ) options
    );
in
{
  inherit (config.system.build) toplevel;
  values = {
    etc = config.environment.etc;
    logs = config.services.logrotate.settings;
    packages = map toString config.systemd.packages;
    pam = config.security.pam.services;
    programs = map toString config.environment.systemPackages;
    rabbitmq = { inherit (config.services.rabbitmq) enable; management = config.services.rabbitmq.managementPlugin.enable; };
    services = config.systemd.services;
    tmpfiles = config.systemd.tmpfiles.settings;
    inherit (config.users) groups users;
  };
  options = lib.concatMap (name: walk "services.${name}" found.options.services.${name}) [ "globus-compute-endpoint" "compute-hub" ];
}
