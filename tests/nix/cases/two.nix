# Two endpoints of one account in one directory: what both need is there once.
{
  services.globus-compute-endpoint.endpoints = {
    one = { kind = "multi-user"; identityMapping = [ ]; pam = { }; };
    two = { kind = "multi-user"; identityMapping = [ ]; pam.service = "sshd"; policy.own_slices = true; running = false; };
  };
}
