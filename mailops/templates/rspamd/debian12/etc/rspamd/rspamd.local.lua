-- Our own rules lie in lua.local.d, which Rspamd 3.4 does not read by itself, as later ones do.
local folder = rspamd_paths['LOCAL_CONFDIR'] .. '/lua.local.d'
for _, path in ipairs(require 'rspamd_util'.glob(folder .. '/*.lua') or {}) do
  dofile(path)
end
