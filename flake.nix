{
  description = "A Globus-Compute-compatible endpoint as a declarative system package";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = build: nixpkgs.lib.genAttrs systems (system: build system nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (system: pkgs: import ./nix/packages.nix { inherit pkgs; });
      apps = each (system: pkgs: import ./nix/apps.nix { inherit pkgs; packages = self.packages.${system}; });
      checks = each (system: pkgs: import ./nix/checks.nix {
        inherit pkgs;
        packages = self.packages.${system};
        modules = self.nixosModules;
      });
      devShells = each (system: pkgs: import ./nix/shells.nix { inherit pkgs; });
      formatter = each (system: pkgs: import ./nix/formatter.nix { inherit pkgs; });
      nixosModules = import ./nix/modules.nix { inherit (self) packages; };
      overlays.default = import ./nix/overlay.nix;
    };
}
