# NixOS modules. packages: those of this flake, by system.
{ packages }:
rec {
  endpoint = import ./module-endpoint.nix { inherit packages; };
  hub = import ./module-hub.nix { inherit packages; };
  default.imports = [ endpoint hub ];
}
