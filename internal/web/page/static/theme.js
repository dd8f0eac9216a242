// Before anything is painted, so that a dark screen never flashes white.
"use strict";
try {
  const chosen = localStorage.getItem("sealfleet.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* storage is forbidden: the system's choice holds */ }
