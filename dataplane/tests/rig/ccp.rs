//! Frames of CCP.

pub fn ccp(code: u8, identifier: u8, data: &[u8]) -> Vec<u8> {
    let len = (4 + data.len()) as u16;
    [
        &[0xff, 0x03, 0x80, 0xfd, code, identifier][..],
        &len.to_be_bytes(),
        data,
    ]
    .concat()
}

const STATELESS_128: [u8; 6] = [18, 6, 1, 0, 0, 0x40];

pub fn configure_request(identifier: u8) -> Vec<u8> {
    ccp(1, identifier, &STATELESS_128)
}

pub fn configure_ack(identifier: u8) -> Vec<u8> {
    ccp(2, identifier, &STATELESS_128)
}

pub fn terminate_request(identifier: u8) -> Vec<u8> {
    ccp(5, identifier, &[])
}

pub fn reset_request(identifier: u8, data: &[u8]) -> Vec<u8> {
    ccp(14, identifier, data)
}

pub fn code_reject(identifier: u8, rejected: &[u8]) -> Vec<u8> {
    ccp(7, identifier, rejected)
}

pub fn reset_ack(identifier: u8) -> Vec<u8> {
    ccp(15, identifier, &[])
}
