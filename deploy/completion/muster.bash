# Completion of `muster` for bash: copy to /usr/share/bash-completion/completions/muster. Always fits the installed
# version, because the program itself prints it.
source <(muster completion bash)
