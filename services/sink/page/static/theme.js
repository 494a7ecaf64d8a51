// Before anything is drawn: the theme that was chosen here, if one was; else the system's.
const chosen = localStorage.getItem("tutti-theme");
if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
