# One endpoint: what is made of its options. one: the values of endpoint-options.nix, and its `name`.
# ours: module-lib.nix. cfg: services.globus-compute-endpoint. accounts: users.users.
{
  lib,
  ours,
  cfg,
  accounts,
}:
one:
let
  inherit (builtins) fromJSON isAttrs isList isString mapAttrs match readFile replaceStrings substring toJSON;

  many = one.kind == "multi-user";
  account = accounts.${one.user} or { };
  above = if one.directory == null then "${account.home or "/home/${one.user}"}/.globus_compute" else toString one.directory;
  folder = "${above}/${one.name}";
  said = lib.filterAttrs (_: value: value != null);

  pam = if one.pam == null then { enable = false; } else { enable = true; service_name = one.pam.service; };
  settings =
    ours.written one.settings
    // lib.optionalAttrs many {
      identity_mapping_config_path = "${folder}/identity_mapping_config.json";
      inherit pam;
    };
  policy =
    {
      service_user = one.user;
      inherit pam;
      own_slices = said one.limits != { } || said one.limitsPerUser != { };
    }
    // ours.written one.policy;

  sliced = many && policy.own_slices;
  inSlices = letter: if match "[A-Za-z0-9._]" letter == null then "_" else letter;
  slice = "gce-${substring 0 64 (lib.stringAsChars inSlices one.name)}";

  # user_config_template.yaml is data, in which a text with braces would be a template.
  literal =
    value:
    if isAttrs value then mapAttrs (_: literal) value
    else if isList value then map literal value
    else if isString value && braced value then "{{ ${toJSON value} }}"
    else value;
  braced = text: match ".*(\\{\\{|\\{%|\\{#).*" (replaceStrings [ "\n" ] [ " " ] text) != null;

  # The program's own template and schema where nothing is given.
  inherit (one.template) data file;
  own = data == null && file == null;
  plainTemplate = "user_config_template.yaml";
  template = if own || (data == null && lib.hasSuffix ".j2" (toString file)) then "${plainTemplate}.j2" else plainTemplate;
  templateText =
    if own then ../endpoint/config/default_template.yaml.j2
    else if data == null then file
    else ours.data template (if one.kind == "single-user" then literal data else data);
  ownSchema = removeAttrs (fromJSON (readFile ../schemas/user-options-default.schema.json)) [ "$id" ];
  noOptions = {
    "$schema" = "https://json-schema.org/draft/2020-12/schema";
    type = "object";
    additionalProperties = false;
    properties = { };
  };
  userOptions =
    if one.userOptionsSchema != null then one.userOptionsSchema
    else if own && one.kind != "single-user" then ownSchema
    else noOptions;

  ca = lib.optionalAttrs (cfg.ca != null) { SSL_CERT_FILE = toString cfg.ca; };
  files =
    {
      "config.yaml" = ours.fromData "endpoint" "config.yaml" settings;
      "user_config_schema.json" = ours.fromData "user-options-schema" "user_config_schema.json" userOptions;
      "user_environment.yaml" = ours.fromData "user-environment" "user_environment.yaml" (ca // one.environment);
      # Rendered while it is checked, with the options that users may send.
      ${template} = ours.checkedWith { inherit (files) "user_config_schema.json"; } "template" template templateText;
    }
    // lib.optionalAttrs many {
      "identity_mapping_config.json" = ours.fromData "identity-mapping" "identity_mapping_config.json" one.identityMapping;
    };

  client = "globus-compute-endpoint/${one.name}.client_id";
  unit = ours.unit "endpoint" "${unitName}.service" {
    inherit (one) kind name;
    inherit (one.unit) restart_delay stop_timeout;
    scope = "system";
    user = if many then null else one.user;
    program = "${cfg.package}/bin/globus-compute-endpoint";
    compute_dir = above;
    environment = ours.serviceVariables { inherit (cfg) ca hub; } // one.unit.environment;
    client_id_file = if one.clientId == null then null else "/etc/${client}";
    client_secret_file = one.clientSecretFile;
    client_secret_credential = one.clientSecretCredential;
    limits = said one.limits;
    slice = if sliced then "${slice}.slice" else null;
  };
  unitName = "globus-compute-endpoint@${one.name}";

  owned = mode: { user = one.user; group = account.group or one.user; inherit mode; };
  link = name: if files ? ${name} then { "L+".argument = "${files.${name}}"; } else { r = { }; };
  names = builtins.attrNames (files // { ${plainTemplate} = null; "${plainTemplate}.j2" = null; });

  where = "services.globus-compute-endpoint.endpoints.${one.name}";
  forMany = one.identityMapping != null || one.pam != null || said one.limitsPerUser != { } || ours.written one.policy != { };
  needs = assertion: message: { inherit assertion message; };
in
{
  inherit many unitName;

  packages = [ unit ] ++ lib.optionals sliced [
    (ours.sliceLimits slice one.limits)
    (ours.sliceLimits "${slice}-" one.limitsPerUser)
  ];

  # What NixOS adds to the unit, in a drop-in.
  service = {
    overrideStrategy = "asDropin";
    wantedBy = lib.optional one.running "multi-user.target";
    # Tasks find what the host's users find.
    path = [ "/run/wrappers" "/run/current-system/sw" ];
    # A restart leaves user endpoints alone, a stop and a start do not.
    stopIfChanged = false;
    # The other files are read whenever a user endpoint starts.
    restartTriggers = [ files."config.yaml" ] ++ lib.optionals many [ files."identity_mapping_config.json" (toJSON policy) ];
  };

  # For systemd-tmpfiles: in a directory of somebody else's, root must not be led astray by a link.
  placed =
    {
      # One that the site chose for a single account's may hold others too, and stays whose it is.
      ${above}.d = if many then owned "0755" else if one.directory == null then owned "0700" else { };
      ${folder}.d = owned "0700";
    }
    // lib.listToAttrs (map (name: lib.nameValuePair "${folder}/${name}" (link name)) names);

  # With a mode these are files and no links: the monitor asks whose they are.
  etc =
    lib.optionalAttrs many {
      "globus-compute-endpoint/${one.name}.policy.json" = { mode = "0644"; source = ours.fromData "policy" "policy.json" policy; };
    }
    // lib.optionalAttrs (one.clientId != null) { ${client} = { mode = "0600"; text = "${one.clientId}\n"; }; };

  # A service that the site has already stays as it is.
  pam =
    lib.optionalAttrs (one.pam != null && !one.pam.existing && (one.pam.stack != null || one.pam.service == "globus-compute-endpoint"))
      { ${one.pam.service} = lib.optionalAttrs (one.pam.stack != null) { text = lib.concatLines one.pam.stack; }; };

  users = lib.optionalAttrs (one.user == "globus-compute") {
    globus-compute = { isSystemUser = true; group = "globus-compute"; home = "/var/lib/globus-compute-endpoint"; };
  };
  groups = lib.optionalAttrs (one.user == "globus-compute") { globus-compute = { }; };

  assertions =
    [
      (needs (match "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}" one.name != null) "${where}: a name here has letters, digits and the characters _ . - only")
      (needs (one.user != null && one.user != "root") "${where}.user must name an account other than root")
      (needs (many -> one.identityMapping != null) "${where}.identityMapping is missing: an endpoint of many accounts needs to know who is whom")
      (needs (!many -> !forMany) "${where}: identityMapping, pam, policy and limitsPerUser are for endpoints of kind multi-user")
      (needs (data == null || file == null) "${where}.template has data and a file: give one of them")
      (needs (one.kind == "single-user" -> !own) "${where}.template is missing: an endpoint of kind single-user has no other configuration")
      (needs (
        (one.clientId == null) == (one.clientSecretFile == null && one.clientSecretCredential == null)
      ) "${where}: clientId goes with clientSecretFile or clientSecretCredential, and neither without the other")
    ]
    ++ ours.secretFaults where "clientSecret" { file = one.clientSecretFile; credential = one.clientSecretCredential; };
}
