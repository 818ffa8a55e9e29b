// Copies the token of the address into the form, and takes it out of the address and the browser's history.
"use strict";
const token = document.getElementById("token");
if (location.hash.length > 1) {
  token.value = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
}
if (token.value) document.querySelector("[data-token]").hidden = true;
