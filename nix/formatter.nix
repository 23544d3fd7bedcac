# `nix fmt`.
{ pkgs }:
pkgs.nixfmt-tree or pkgs.nixfmt-rfc-style
