# An endpoint of one account with the public service, and one that is not on.
{
  users.users.alice = { isNormalUser = true; home = "/home/alice"; };
  services.globus-compute-endpoint.endpoints = {
    lab = {
      kind = "single-user";
      user = "alice";
      settings.display_name = "The lab's endpoint";
      template.data = { engine = { type = "ThreadPoolEngine"; max_workers = 2; }; };
      environment.OMP_NUM_THREADS = 4;
      limits = { memory_max = "8G"; cpu_quota = 400; };
      unit.environment.HTTPS_PROXY = "http://proxy.example.org:3128";
    };
    old = { enable = false; kind = "templated"; user = "alice"; };
  };
}
