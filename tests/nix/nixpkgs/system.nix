# What NixOS makes of our modules' values, as files below etc/ that any systemd reads: units with their drop-ins, accounts, what
# systemd-tmpfiles does, PAM's services.
{ lib, pkgs, config }:
let
  inherit (builtins) concatStringsSep isBool isList toJSON;
  inherit (lib) concatMapStringsSep filterAttrs mapAttrsToList;

  text = value: if isBool value then (if value then "true" else "false") else toString value;
  each = value: if isList value then value else [ value ];
  lines =
    attributes:
    concatStringsSep "" (
      mapAttrsToList (name: value: concatMapStringsSep "" (one: "${name}=${text one}\n") (each value)) attributes
    );

  service =
    name: given:
    let
      script = pkgs.runCommand "script" { inherit (given) script; passAsFile = [ "script" ]; } ''
        mkdir -p $out/bin
        { echo "#!/bin/sh"; cat $scriptPath; } > $out/bin/run
        chmod +x $out/bin/run
      '';
      unit = filterAttrs (_: value: value != [ ]) {
        After = given.after or [ ];
        Wants = given.wants or [ ];
        Requires = given.requires or [ ];
        X-Restart-Triggers = given.restartTriggers or [ ];
      };
      started = lib.optionalAttrs (given ? script) { ExecStart = "${script}/bin/run"; };
    in
    {
      name = "${name}.service";
      dropIn = !(given ? script);
      wants = given.wantedBy or [ ];
      content = lib.concatLines [
        "[Unit]"
        (lines (lib.optionalAttrs (given ? description) { Description = given.description; } // unit))
        "[Service]"
        (lines { Environment = mapAttrsToList (name: value: ''"${name}=${text value}"'') (given.environment or { }); })
        (lines (started // given.serviceConfig or { }))
      ];
    };

  source = file: file.source or (pkgs.writeText "etc" file.text);
  accounts =
    concatStringsSep "" (mapAttrsToList (name: _: "g ${name} -\n") config.users.groups)
    + concatStringsSep "" (mapAttrsToList account config.users.users);
  account = name: user: lib.optionalString (user.isSystemUser or false) "u ${name} - - ${user.home}\n";

  rules =
    concatStringsSep "" (
      mapAttrsToList (path: kinds: concatStringsSep "" (
        mapAttrsToList (kind: rule: "${kind} ${path} ${rule.mode or "-"} ${rule.user or "-"} ${rule.group or "-"} - ${rule.argument or ""}\n") kinds
      )) (lib.foldl' (all: one: all // one) { } (builtins.attrValues config.systemd.tmpfiles.settings))
    );
in
pkgs.runCommand "system"
  {
    packages = config.systemd.packages;
    etc = toJSON (mapAttrsToList (name: file: { inherit name; path = "${source file}"; }) config.environment.etc);
    services = toJSON (mapAttrsToList service config.systemd.services);
    pam = toJSON (builtins.mapAttrs (_: one: one.text or "") config.security.pam.services);
    inherit accounts rules;
    passAsFile = [ "accounts" "etc" "pam" "rules" "services" ];
  }
  ''
    ${pkgs.python} -I ${./system.py}
  ''
