# `nix run .#endpoint -- ARGUMENTS` is `globus-compute-endpoint ARGUMENTS`.
{ packages }:
rec {
  endpoint = {
    type = "app";
    program = "${packages.endpoint}/bin/globus-compute-endpoint";
  };
  default = endpoint;
}
