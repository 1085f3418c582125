# Runs before everybody's own scripts. Rspamd takes this header out of what strangers send, and sets it itself.
require ["fileinto", "mailbox"];

if header :is "X-Spam" "Yes" {
    fileinto :create "Junk";
    stop;
}
