# The options of one endpoint.
{ lib, secretOptions }:
{ name, config, ... }:
let
  inherit (lib) mkOption types;
  mirrored = import ./options.nix { inherit lib; };
  data = types.attrsOf types.anything;
  of = kinds: "Only for ${kinds}.";
in
{
  options = {
    enable = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether the endpoint is on this host. Its directory, with its id, stays where it is when this is turned off.";
    };

    kind = mkOption {
      type = types.enum [ "single-user" "templated" "multi-user" ];
      example = "multi-user";
      description = "`single-user` for one account with one configuration, `templated` for one account with a template, `multi-user` for many accounts.";
    };

    user = mkOption {
      type = types.nullOr types.str;
      default = if config.kind == "multi-user" then "globus-compute" else null;
      defaultText = lib.literalExpression ''if kind == "multi-user" then "globus-compute" else null'';
      example = "alice";
      description = "The account that runs it and its tasks. For `multi-user`, the one of the part that talks to the network, made by this module if it is `globus-compute`; tasks run as those whom `identityMapping` names.";
    };

    directory = mkOption {
      type = types.nullOr types.path;
      default = if config.kind == "multi-user" then "/var/lib/globus-compute-endpoint" else null;
      defaultText = lib.literalExpression ''if kind == "multi-user" then "/var/lib/globus-compute-endpoint" else null'';
      example = "/srv/compute-endpoint";
      description = "The directory that holds the endpoint's directory; without it, `.globus_compute` in the home directory of the account.";
    };

    settings = mkOption {
      type = types.submodule { freeformType = data; options = mirrored.endpoint; };
      default = { };
      example = { display_name = "The lab's endpoint"; };
      description = "The endpoint's `config.yaml`, checked while the system is built. What is null is not written. Paths of the files that stand here, and PAM, follow from the other options.";
    };

    template.data = mkOption {
      type = types.nullOr data;
      default = null;
      example = { engine = { type = "ThreadPoolEngine"; max_workers = 4; }; };
      description = "The user endpoints' configuration: for `single-user` as it is, else a template, whose values may have `{{ ... }}` with what users send.";
    };

    template.file = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = lib.literalExpression "./user_config_template.yaml.j2";
      description = "The same in a file: `.yaml.j2` for a template that is text, `.yaml` for one that is data. With neither, the program's own template.";
    };

    userOptionsSchema = mkOption {
      type = types.nullOr data;
      default = null;
      example = { type = "object"; properties.workers = { type = "integer"; maximum = 8; }; };
      description = "The JSON schema of what users may send, as data (for a file: `lib.importJSON`). Without it, they may send what the program's own template takes, and nothing for another one.";
    };

    identityMapping = mkOption {
      type = types.nullOr (types.listOf data);
      default = null;
      example = [ { DATA_TYPE = "expression_identity_mapping#1.0.0"; mappings = [ { source = "{username}"; match = "(.*)@lab\\.example"; output = "{0}"; } ]; } ];
      description = "Who is whom: the mappings of `identity_mapping_config.json`. ${of "`multi-user`, which needs it"}";
    };

    environment = mkOption {
      type = types.attrsOf (types.oneOf [ types.str types.number types.bool ]);
      default = { };
      example = { OMP_NUM_THREADS = 4; };
      description = "Environment variables of its user endpoints, `user_environment.yaml`. Without a `PATH`, they have the host's.";
    };

    policy = mkOption {
      type = types.submodule { freeformType = data; options = mirrored.policy; };
      default = { };
      example = { required_groups = [ "hpc-users" ]; };
      description = "Which local users may have user endpoints, whatever the mapping says, and how many. ${of "`multi-user`"} `service_user` and `pam` follow from the other options, and `own_slices` from the limits where it is not given.";
    };

    pam = mkOption {
      type = types.nullOr (types.submodule { options = mirrored.pam; });
      default = null;
      example = { stack = [ "account required pam_unix.so" "session required pam_limits.so" ]; };
      description = "The PAM service that local users must pass, for as long as their user endpoint runs. ${of "`multi-user`"} Without `stack`, NixOS makes the service as it makes others; options of `security.pam.services.NAME` change it. Without this, PAM is not asked.";
    };

    clientId = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "11111111-1111-4111-8111-111111111111";
      description = "The id of the client identity with which it registers; it is no secret. Without it, the account must have logged in once.";
    };

    limits = mkOption {
      type = types.submodule { options = mirrored.limits; };
      default = { };
      example = { memory_max = "64G"; };
      description = "What the endpoint and everything that it starts may take together.";
    };

    limitsPerUser = mkOption {
      type = types.submodule { options = mirrored.limits; };
      default = { };
      example = { memory_max = "16G"; tasks_max = 4096; };
      description = "What all user endpoints of one local user may take together. ${of "`multi-user`"}";
    };

    unit = mkOption {
      type = types.submodule { options = mirrored.unit; };
      default = { };
      example = { stop_timeout = 120; };
      description = "The systemd service of the endpoint. What is not here is for `systemd.services.\"globus-compute-endpoint@NAME\"`, which becomes a drop-in.";
    };

    running = mkOption {
      type = types.bool;
      default = true;
      example = false;
      description = "Whether it is started when the host boots.";
    };
  } // secretOptions "clientSecret" "the client's secret";
}
