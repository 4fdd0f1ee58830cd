#!/bin/sh
# Answers every batch with its text in capitals. What else it is told it need not understand.
while IFS= read -r line; do
  case $line in
  '{"kind":"batch",'*)
    uid=$(printf '%s' "$line" | sed 's/^{"kind":"batch","batch_uid":"\([^"]*\)".*/\1/')
    text=$(printf '%s' "$line" | sed 's/.*"text":"\([^"]*\)".*/\1/' | tr a-z A-Z)
    printf '{"kind":"result","batch_uid":"%s","artifact":"%s"}\n' "$uid" "$text"
    ;;
  esac
done
