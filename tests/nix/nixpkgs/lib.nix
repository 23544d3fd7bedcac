# The few names of nixpkgs' library that the flake uses.
{
  genAttrs = names: value: builtins.listToAttrs (map (name: { inherit name; value = value name; }) names);
  licenses.asl20 = { spdxId = "Apache-2.0"; };
  platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
}
