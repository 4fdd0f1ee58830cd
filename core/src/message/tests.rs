mod any;
mod hostile;
mod wire;
