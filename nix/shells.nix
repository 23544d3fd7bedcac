# `nix develop`: what `make` needs; it installs the locked Python packages itself.
# `nix develop .#site`: for who runs Ansible: ansible-playbook, py.test with testinfra, and the program, which the inventory asks.
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

  site = pkgs.mkShell {
    packages = [
      (pkgs.python3.withPackages (_: [ (pkgs.callPackage ./package.nix { extras = [ "site" ]; }) ]))
    ];
  };
}
