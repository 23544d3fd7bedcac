# `nix develop`: what `make` needs; it installs the locked Python packages itself.
{ pkgs }:
{
  default = pkgs.mkShell {
    packages = [
      pkgs.git
      pkgs.gnumake
      pkgs.python3
      pkgs.rabbitmq-server
    ];
  };
}
